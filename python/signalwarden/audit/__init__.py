"""Evidence for auditors: what the directory, the state and the records say of the controls of three standards."""
