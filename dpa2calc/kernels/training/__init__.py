"""Operations with second derivatives."""
