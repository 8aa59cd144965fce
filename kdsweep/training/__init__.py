"""How is one student trained? An epoch at a time, resumable, without Ray."""
