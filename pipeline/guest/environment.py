"""What every shell of ours on a guest has around it: no history, plain messages, system paths, root's home."""

PRELUDE = """\
unset ENV BASH_ENV CDPATH HISTFILE
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
HOME=/root LC_ALL=C TERM=dumb HISTSIZE=0 DEBIAN_FRONTEND=noninteractive
export PATH HOME LC_ALL TERM HISTSIZE DEBIAN_FRONTEND
"""
