"""Images with instances: files in COCO's format, and what training does to images and instances."""
