"""Small specs."""

from pipeline.spec import Spec

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPMyjB/zEOrmac2xLKJK29sjyXpbFwrVtltfe818pnuB ada@example"


def make_spec(users=(), checks=(), launch_user="admin", **more):
    """Return a spec with these users, each with the same key, and these checks of its own."""
    return Spec.model_validate(
        {
            "name": "web",
            "region": "eu-central-1",
            "base_image": {"id": "ami-12345678", "owner": "123456789012"},
            "users": [{"name": name, "full_name": name.title(), "keys": [KEY]} for name in users],
            "checks": list(checks),
            "image": {"launch_user": launch_user},
        }
        | more
    )
