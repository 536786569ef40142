"""Images with instances: files in COCO's format, and the transforms of images and instances."""
