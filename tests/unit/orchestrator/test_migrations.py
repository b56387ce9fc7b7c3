from alembic.config import Config
from alembic.script import ScriptDirectory


def test_the_history_is_one_line():
    config = Config()
    config.set_main_option("script_location", "runnerhub_orchestrator:migrations")
    scripts = ScriptDirectory.from_config(config)
    assert len(scripts.get_heads()) == 1
    assert len(scripts.get_bases()) == 1
