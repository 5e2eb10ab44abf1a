"""Active learning: frames where a model is unsure are labelled, and learned."""
