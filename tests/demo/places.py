"""Where pixels of the network's input stand on the picture of attention."""

from halonet.demo.attention import area_of, canvas_size


def place_of(layer, pixel):
    """The middle of a pixel of the network's input on the picture."""
    area = area_of(layer)
    width, height = canvas_size(area)
    y = (pixel[0] + 0.5 - area.top) / (area.bottom - area.top) * height
    x = (pixel[1] + 0.5 - area.left) / (area.right - area.left) * width
    return int(x), int(y)
