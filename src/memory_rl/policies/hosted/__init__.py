"""The hosted learner: R LoRA training clients of a service that speaks the Tinker API, through its SDK.

Nothing else in the package imports the SDK.
"""
