"""Models as files and as objects: the format of a checkpoint, building, loading."""
