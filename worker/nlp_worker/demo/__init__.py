"""The main job on real input, to watch: `nlp-worker demo`."""
