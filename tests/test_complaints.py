from halonet.complaints import Complaint, RuleError, missing, must_be


def test_section_prefixes_the_key():
    value = must_be("layers", 0, "from 1 to 20").under("party.cake")
    assert str(value) == "party.cake.layers is 0, but must be from 1 to 20"
    key = Complaint("bakd", known=("baked", "layers")).under("party.cake")
    assert str(key).startswith("unknown key 'party.cake.bakd'. Did you mean 'party.cake.baked'?")


def test_long_lists_of_complaints_are_cut():
    lines = str(RuleError.of("Cake", [missing(f"x{number}") for number in range(100)])).splitlines()
    assert lines[0] == "Cake: 100 mistakes"
    assert lines[1] == "  x0 is missing: add it"
    assert lines[-1] == "  and 80 more"
    assert len(lines) == 22


def test_single_complaint_is_one_line():
    assert str(RuleError.of("Cake", [missing("layers")])) == "Cake: layers is missing: add it"
    assert str(missing("layers").error()) == "layers is missing: add it"
