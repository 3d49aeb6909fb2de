"""The lab's objectives inside other people's trainers; each package here imports the trainer that it is named after."""
