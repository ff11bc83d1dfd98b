"Studies: printed values, chapters and their reports."
