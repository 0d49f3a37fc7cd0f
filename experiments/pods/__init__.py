"""What a loss or a whole step costs on chips that are not here, by their compilers."""
