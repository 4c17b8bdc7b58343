"""ofa-import as `python -m ofa_tf.cli.import`: no statement can import a module of this name."""  # noqa: N999

from ofa_tf.cli.import_ import main

if __name__ == "__main__":
    main()
