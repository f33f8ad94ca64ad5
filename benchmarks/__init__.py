"""What the README's figures come from. Ratios, measured in one run; random weights of real sizes, no download."""
