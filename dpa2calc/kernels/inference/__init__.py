"""Operations without second derivatives, for frozen weights."""
