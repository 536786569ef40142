import pytest

from halonet.errors import UserError, UserNote
from tests.data.detection.coco_samples import content_of, instance, open_content, refused

FAR = "whose box is not finite or leads too far"
FEW = "whose mask has a polygon that is not x and y of 3 points or more"
LONG = [[0, 0, 2**19, 0] * 3 + [0, 9]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [1, 2, float("nan"), 4]}, FAR),
        ({"bbox": [1, 2, float("inf"), 4]}, FAR),
        ({"bbox": [1e308, 2, 3, 4]}, FAR),
        ({"bbox": [1, 2, 10**400, 4]}, FAR),
        ({"bbox": [5, 5, -2, 4]}, "whose box has a negative width or height"),
        ({"segmentation": None}, "without a mask"),
        ({"segmentation": []}, "without a mask"),
        ({"segmentation": "x"}, "whose mask is neither polygons nor run lengths"),
        ({"segmentation": {"size": [9, 12], "counts": None}}, "whose mask is neither polygons nor run lengths"),
        ({"segmentation": [[1, 2, 3, 4]]}, FEW),
        ({"segmentation": [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]]}, FEW),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, FEW),
        ({"segmentation": [[1, 2, 3, 4, 5, "x"]]}, "whose mask has a polygon that holds something other than numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, True]]}, "whose mask has a polygon that holds something other than numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e300]]}, "whose mask has a polygon that is not finite or leads too far"),
        ({"segmentation": [[1, 2, 3, 4, 5, 10**400]]}, "whose mask has a polygon that is not finite or leads too far"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "a polygon that is not finite or leads too far"),
        ({"segmentation": LONG}, "whose mask has a polygon that is not finite or leads too far"),
        ({"segmentation": {"size": [12, 9], "counts": [108]}}, "whose mask is not of its image's size"),
        ({"segmentation": {"counts": [108]}}, "whose mask is not of its image's size"),
        *(
            ({"segmentation": {"size": [9, 12], "counts": counts}}, "whose run lengths are damaged or do not add up")
            for counts in ([100], [-2, 110], [54.0, 54], "", "garbage", "é", "o", "~", "0" * 50, "oooooooooo0", "[1")
        ),
    ],
)
def test_unusable_annotation_is_left_out_and_counted(tmp_path, changes, reason):
    entry = {key: value for key, value in (instance(5, 1) | changes).items() if value is not None}
    content = content_of([instance(1, 1), entry, instance(6, 2), entry | {"id": 7}], num_images=2)
    with pytest.warns(UserNote, match=r"2 of 4 annotations are left out: 2 .* \(the first: annotation 5\)") as notes:
        source = open_content(tmp_path, content)
    assert len(notes) == 1
    assert reason in str(notes[0].message)
    assert [each["id"] for each in source.ground_truth["annotations"]] == [1, 6]
    assert [len(target["boxes"]) for _, target in source] == [1, 1]


def test_reasons_are_counted_separately(tmp_path):
    content = content_of(
        [
            instance(1, 1),
            *(instance(number, 1, bbox=[1, 2, 3, float("inf")]) for number in (2, 3)),
            instance(4, 1, segmentation=[[1, 2]]),
        ]
    )
    with pytest.warns(UserNote) as notes:
        open_content(tmp_path, content)
    assert f"3 of 4 annotations are left out: 2 {FAR} (the first: annotation 2), 1 {FEW} (the first: annotation 4)" in (
        str(notes[0].message)
    )


def test_file_without_usable_annotations_is_refused(tmp_path):
    found = refused(tmp_path, content_of([instance(1, 1, bbox=[1, 2, -3, 4])]))
    assert "1 of 1 annotations are left out: 1 whose box has a negative width or height" in found
    assert "no annotation is usable" in found


def test_file_of_crowds_gets_a_note(tmp_path):
    content = content_of([instance(number, 1, iscrowd=1) for number in (1, 2)])
    with pytest.warns(UserNote, match=r"2 of 2 annotations are crowds \(iscrowd 1\), which are not learned"):
        assert len(open_content(tmp_path, content)[0][1]["boxes"]) == 0


@pytest.mark.parametrize("area", [float("nan"), float("inf"), -3, "large", True])
def test_invalid_area_is_recomputed(tmp_path, area):
    with pytest.warns(UserNote, match="1 areas are not finite numbers of at least 0, and are computed again"):
        source = open_content(tmp_path, content_of([instance(1, 1, area=area), instance(2, 1)]))
    assert [entry["area"] for entry in source.ground_truth["annotations"]] == [25, 25]


def boxes_alone(content):
    """The same as Roboflow writes it for boxes."""
    return content | {"annotations": [entry | {"segmentation": []} for entry in content["annotations"]]}


@pytest.mark.filterwarnings("ignore::halonet.errors.UserNote")
def test_file_of_boxes_has_no_masks(tmp_path):
    source = open_content(tmp_path, boxes_alone(content_of([instance(1, 1, area=float("nan")), instance(2, 1)])))
    assert not source.has_masks
    assert "masks" not in source[0][1]
    assert source[0][1]["boxes"].tolist() == [[2, 3, 7, 8]] * 2
    assert source.ground_truth["annotations"][0]["area"] == 25
    with pytest.raises(UserError, match="no annotation has a mask, .* train on boxes with --model.masks false"):
        open_content(tmp_path, boxes_alone(content_of([instance(1, 1)])), masks=True)


def test_unused_masks_are_not_checked(tmp_path):
    content = content_of([instance(1, 1, segmentation="x"), instance(2, 1)])
    source = open_content(tmp_path, content, masks=False)
    assert len(source[0][1]["boxes"]) == 2
    assert "masks" not in source[0][1]


def test_annotations_without_mask_are_left_out_with_a_remedy(tmp_path):
    content = content_of([instance(1, 1), instance(2, 1, segmentation=[])])
    with pytest.warns(UserNote, match="1 without a mask .*--model.masks false learns boxes only"):
        source = open_content(tmp_path, content)
    assert source.has_masks
    assert source.without_mask == 1
