"""SelfExtendLlama wherever a program says llama_cpp.Llama: python planned.py (SCRIPT | -m MODULE) [ARGUMENT ...]

In a program of your own the three lines below come before the import of the tool. What can't be planned ends the program with a sentence.
"""

import llama_cpp

from selfextend_local import SelfExtendLlama

llama_cpp.Llama = SelfExtendLlama  # type: ignore[misc]

if __name__ == "__main__":
    import runpy
    import sys

    from selfextend_local.errors import SelfExtendError

    try:
        if sys.argv[1] == "-m":
            del sys.argv[:2]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            del sys.argv[0]
            runpy.run_path(sys.argv[0], run_name="__main__")
    except Exception as error:
        reason: BaseException | None = error  # tools put errors of their own around ours
        while reason is not None and not isinstance(reason, SelfExtendError):
            reason = reason.__cause__ or reason.__context__
        if reason is None:
            raise
        sys.exit(f"error: {reason}")
