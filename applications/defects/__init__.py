"""Surfaces, vacancies and barriers."""
