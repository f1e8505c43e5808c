"""What shells, clients and editors remember of what was typed (S04)."""

from pipeline.guest.step import Step
from pipeline.scrub.removal import removal
from pipeline.spec import Spec

NAMES = (
    ".*_history .*_history-* .*_history.* .*history .history-* .histfile .zhistory .Rhistory .rediscli_history "
    ".lesshst .lesshsQ .viminfo .viminf?.tmp .vim/.netrwhist .nano/search_history .dbshell .mongorc.js .mongosh "
    ".local/share/fish/fish_history .local/share/fish .local/share/nano .local/state/* .local/share/mc/history "
    ".local/share/recently-used.xbel .wget-hsts .gdb_history .octave_hist .config/fish/fish_history "
    ".bash_sessions .zsh_sessions .node_repl_history .sqlite_history .xonsh_history .ipython .jupyter "
    ".sudo_as_admin_successful .local/share/nvim/shada .mongodb/mongosh .python_history-*"
)


def steps(spec: Spec) -> tuple[Step, ...]:
    """Return the step that removes every history. Ours is written nowhere: the program's shell keeps none."""
    return (
        removal(
            spec, "history", ("S04",), "remove the histories of shells, clients and editors", f"in_homes '{NAMES}'"
        ),
    )
