"""OVN's databases as they are now, and changes of them, in the words of OVN's schemas."""
