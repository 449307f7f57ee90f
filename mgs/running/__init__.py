"""Who does tasks: this process, a process for each device, or a Ray cluster. The tasks are other rooms' own."""
