from halonet.data.detection.coco_file import distinct_labels


def test_labels_of_equal_names_are_distinct():
    def label(*owners):
        names = ["eye"] * len(owners)
        return distinct_labels(names, [{"id": 3 + i, "supercategory": owner} for i, owner in enumerate(owners)])

    assert label("left") == ["eye"]
    assert label("left", "right") == ["eye (left)", "eye (right)"]
    assert label("left", "right", "right") == ["eye (left)", "eye (id 4)", "eye (id 5)"]
    assert label(None, None) == ["eye (id 3)", "eye (id 4)"]
    assert distinct_labels(["cat", "dog"], [{"id": 1}, {"id": 2}]) == ["cat", "dog"]
