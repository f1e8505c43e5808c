import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.verify.redaction import LONGEST, redact, shorten

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("b3BlbnNzaC1rZXk", f"found {KEY} there"),
        ("MIIEpAIBAAKCAQEA", "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA and cut off"),
        ("Xk3jd9Qw1mPz", "root:$6$salt$Xk3jd9Qw1mPz:19000"),
        ("j9T$Xk3jd9Qw1mPz", "root:$y$j9T$Xk3jd9Qw1mPz:19000"),
        ("hunter2hunter2", "password = hunter2hunter2"),
        ("hunter2hunter2", "'DB_PASSWORD': 'hunter2hunter2'"),
        ("wJalrXUtnFEMI", "aws_secret_access_key=wJalrXUtnFEMI/K7MDENG"),
        ("hunter2", "http://bob:hunter2@proxy.example:3128/"),
        ("ghp_abcdefghijklmnop", "token ghp_abcdefghijklmnop"),
    ],
)
def test_a_secret_is_taken_out(secret, text):
    assert secret in text
    assert secret not in redact(text)


@pytest.mark.parametrize(
    "text",
    ["passwordauthentication ['yes']", "/root/.ssh/id_ed25519", "SHA256:abc", "assert 6 <= 3", "http://proxy:3128/"],
)
def test_plain_words_stay(text):
    assert redact(text) == text


@given(st.text())
def test_a_reason_is_never_too_long(text):
    assert len(shorten(text * 300)) <= LONGEST
