"""SelfExtendLlama wherever a program says llama_cpp.Llama: python planned.py (SCRIPT | -m MODULE) [ARGUMENT ...]

In a program of your own these three lines come before the import of the tool.
"""

import llama_cpp

from selfextend_local import SelfExtendLlama

llama_cpp.Llama = SelfExtendLlama  # type: ignore[misc]

if __name__ == "__main__":
    import runpy
    import sys

    if sys.argv[1] == "-m":
        del sys.argv[:2]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        del sys.argv[0]
        runpy.run_path(sys.argv[0], run_name="__main__")
