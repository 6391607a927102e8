"""Who uses the platform, and what they may do: users, tokens, roles, tenants, audit."""
