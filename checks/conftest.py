"""Run the checks with any testinfra connection:

python -m pytest checks --hosts=ssh://root@192.0.2.7 --layer=B --spec=specs/web.yaml
"""

pytest_plugins = ("checks.fixtures",)
