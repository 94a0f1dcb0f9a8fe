"""The wire contract of nlp-worker."""
