"""The folder that is put on `sys.path`, so that `import pyupbit` finds the module beside this file."""
