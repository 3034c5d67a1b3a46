"""What fails together is left alone together: breakers, rate limits, budgets and integration incidents of outbound calls."""
