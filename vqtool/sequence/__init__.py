"""What priors are made of: code heads, generation, forecasting, and the chain from signals to codes and back."""
