"""EC2 instances and EBS volumes for a training: `python -m scripts.aws --help`.

Needs boto3 only where AWS is called, and nothing of src.
"""
