"""What is wrong with an account or its network: facts are gathered side by side, then judged without asking more."""
