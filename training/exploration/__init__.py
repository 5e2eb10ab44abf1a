"""Dynamics in rounds under a user's conditions: what distillation and active learning share."""
