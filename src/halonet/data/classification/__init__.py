"""Images with one label each: data sets, folders, archives and what training does to images."""
