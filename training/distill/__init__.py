"""Distillation of a model into a student."""
