"""What each command does, with `halonet` imported. The parsers name these functions as text."""
