"""A worker that answers NLP requests from Kafka topics with Hugging Face models."""
