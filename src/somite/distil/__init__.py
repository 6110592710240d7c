"""`somite distil`: a large run teaches a compact one.

lesson    the pupil's recipe, with the teacher's share in it
checks    what does not go together, before anything is computed
answers   what the teacher says of the training images, once, on disk
teach     the pupil's training
compare   the pupil beside the same pupil untaught and the teacher
"""
