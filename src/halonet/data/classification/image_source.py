"""The protocol of image sources, and access to its optional parts."""

from typing import Protocol, runtime_checkable

from PIL import Image

from halonet.data.images import Header


@runtime_checkable
class ImageSource(Protocol):
    """A finite, ordered collection of labeled images.

    Optional attributes: `labels`, if they are known without reading images; `variant`, if the data set has several;
    `names` of the files; `inspect(index)`, which reads a header alone; `read(index, shorter_side)`, which scales the
    image down as it is decoded.
    """

    @property
    def class_names(self) -> list[str]:
        """The name of each class, by label."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        """Return an image and its label."""
        ...


def labels_of(source: ImageSource) -> list[int]:
    """Labels of all images; every image is read if the source has no `labels`."""
    labels = getattr(source, "labels", None)
    return list(labels) if labels is not None else [source[index][1] for index in range(len(source))]


def names_of(source: ImageSource) -> list[str]:
    """Names of all images, or their indices if the source has no `names`."""
    names = getattr(source, "names", None)
    return list(names) if names is not None else [str(index) for index in range(len(source))]


def read_scaled(source: ImageSource, index: int, shorter_side: int | None) -> tuple[Image.Image, int]:
    """Read an image and its label, scaled down if the source has `read`."""
    read = getattr(source, "read", None)
    return source[index] if read is None else read(index, shorter_side)


def inspect_source(source: ImageSource, index: int) -> Header:
    """Read an image's header; the image is decoded if the source has no `inspect`."""
    inspect = getattr(source, "inspect", None)
    if inspect is not None:
        return inspect(index)
    image, _ = source[index]
    return Header(image.size, image.mode != "L")
