"""Fine-tuning a checkpoint on labelled texts, and evaluating it as it is served."""
