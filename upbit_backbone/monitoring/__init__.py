"""How we are: what is measured, what it means, and how to see it.

metrics ● measures, assessment ○ judges, health_monitor ● looks and tells, alerts ○ decide when to call somebody,
log_lines ● writes it down, prometheus ● (an extra) exports it.
"""
