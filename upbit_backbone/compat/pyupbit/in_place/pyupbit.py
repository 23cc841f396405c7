"""What `import pyupbit` finds while this folder is in front on `sys.path`: the stand-in."""

from upbit_backbone.compat.pyupbit import stand_in

stand_in.take_place()
