"""What is said of a training before it begins, whatever the task."""

LONGEST = 30 * 60  # seconds that a training may take before it is made smaller
MOST_CLASSES_NAMED = 6


def in_words(seconds: float) -> str:
    """Print a time, roughly."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
