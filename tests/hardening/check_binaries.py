#!/usr/bin/python3
"""
Reads the programs that were built, and says what they should have against attacks and do not.

check_binaries.py CC PROGRAM… judges programs; CC is what built them, since what they can have
depends on it. check_binaries.py --self-test CC builds small programs that each lack one thing, and
wants every one of them found out: a check that finds nothing proves nothing.
"""

import pathlib
import platform
import re
import subprocess
import sys
import tempfile

IS_X86 = platform.machine() == "x86_64"


def output_of(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True,
                          text=True, errors="replace").stdout


def start_file_has_cet(cc):
    """Does libc's own start code, which is in each program, have the mark of CET? Without that the
    linker gives none to the program either, however it is compiled."""
    start = output_of(cc, "-print-file-name=Scrt1.o").strip()
    return "IBT" in output_of("readelf", "-nW", start)


def compiler_takes(cc, flag):
    return subprocess.run([cc, "-Werror", flag, "-xc", "-c", "-o", "/dev/null", "/dev/null"],
                          capture_output=True).returncode == 0


def check(cc, program):
    """What is wrong with it, as a list of complaints."""
    header = output_of("readelf", "-hW", program)
    segments = output_of("readelf", "-lW", program)
    dynamic = output_of("readelf", "-dW", program)
    symbols = output_of("readelf", "--dyn-syms", "-W", program)
    flags = " ".join(re.findall(r"\((?:FLAGS|FLAGS_1|BIND_NOW)\)(.*)", dynamic))
    complaints = []

    def want(holds, complaint):
        if not holds:
            complaints.append(f"{pathlib.Path(program).name}: {complaint}")

    want("DYN (" in header and "PIE" in flags, "is at a fixed address: no PIE")
    want("GNU_RELRO" in segments, "its tables of addresses stay writable: no RELRO")
    want("NOW" in flags, "binds functions late, so that RELRO is not full: no BIND_NOW")
    want("(TEXTREL)" not in dynamic and "TEXTREL" not in flags, "its code is relocated: TEXTREL")
    stack = re.search(r"GNU_STACK\s+(?:0x\w+\s+){5}([RWE ]+?)\s+0x", segments)
    want(stack and "E" not in stack[1], "its stack may be code")
    want(not re.search(r"LOAD\s+(?:0x\w+\s+){5}(RWE|R?W ?E|WE)", segments),
         "has memory that is both writable and code")
    want(not re.search(r"\((RPATH|RUNPATH)\)", dynamic), "looks for libraries where it was built")
    want("__stack_chk_fail" in symbols, "no stack protector")
    want(re.search(r"__\w+_chk\b(?<!__stack_chk)", symbols), "no fortified calls of libc")
    want("__gets" not in symbols and not re.search(r" (gets|strcpy|strcat|sprintf)@", symbols),
         "calls what writes without knowing how much fits")
    if IS_X86:
        check_code(cc, program, want)
    return complaints


def check_code(cc, program, want):
    """What cannot be seen but in the code itself, for the one architecture that is read here."""
    code = output_of("objdump", "-d", "--no-show-raw-insn", program)
    main = re.search(r"<main>:\n.*?:\s+(\w+)", code)
    want(main and main[1] == "endbr64", "main() is no place that may be jumped to: no CET")
    if start_file_has_cet(cc):
        notes = output_of("readelf", "-nW", program)
        want("IBT" in notes and "SHSTK" in notes, "no mark for CET")
    # Frames beyond a page are taken page by page; in a program without one nothing can be seen.
    frames = [int(size, 16) for size in re.findall(r"sub\s+\$0x(\w{4,6}),%rsp", code)]
    want(not any(0x1000 < size for size in frames), "takes frames of pages at once: stack clash")
    # gcc writes its options into the debug information.
    if compiler_takes(cc, "-ftrivial-auto-var-init=zero") and ".debug_info" in output_of(
            "readelf", "-SW", program):
        options = output_of("readelf", "--debug-dump=info", "--dwarf-depth=1", program)
        ours = [line for line in options.splitlines()
                if "DW_AT_producer" in line and "GNU C" in line]
        want(all(re.findall(r"-ftrivial-auto-var-init=(\w+)", line)[-1:] == ["zero"]
                 for line in ours),
             "has variables that begin with what was there before")


# --- the proof ----------------------------------------------------------------------------------

SOURCE = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char small[16];
    char large[9000];
    memset(large, argc, sizeof(large));
    snprintf(small, (size_t)argc * 20, "%s", argv[0]);
    return (int)read(0, large, (size_t)argc * 9001) + small[0];
}
#ifdef ABSOLUTE
__asm__(".text\\naddress: .quad main\\n");
#endif
#ifdef WRITABLE_CODE
__asm__(".section .patched,\\"awx\\"\\npatched: .long 0\\n");
#endif
"""
GOOD = ["-O2", "-g", "-fPIE", "-pie", "-fstack-protector-strong", "-fstack-clash-protection",
        "-fcf-protection=full", "-ftrivial-auto-var-init=zero", "-U_FORTIFY_SOURCE",
        "-D_FORTIFY_SOURCE=2", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]

# What is given after all that is good, and what the check has to say then.
LACKING = [
    (["-fno-pie", "-no-pie"], "no PIE"),
    (["-Wl,-z,norelro"], "no RELRO"),
    (["-Wl,-z,lazy"], "no BIND_NOW"),
    (["-Wl,-z,execstack"], "its stack may be code"),
    (["-Wl,-rpath,/tmp"], "looks for libraries"),
    (["-fno-stack-protector"], "no stack protector"),
    (["-U_FORTIFY_SOURCE"], "no fortified calls"),
    (["-DWRITABLE_CODE"], "both writable and code"),
]
LACKING_X86 = [
    (["-fcf-protection=none"], "no CET"),
    (["-fno-stack-clash-protection"], "stack clash"),
    (["-ftrivial-auto-var-init=uninitialized"], "what was there before"),
    (["-Wl,-z,notext", "-DABSOLUTE"], "TEXTREL"),
]


def self_test(cc):
    takes = [flag for flag in GOOD if not flag.startswith("-f") or compiler_takes(cc, flag)]
    samples = [([], None), *LACKING, *(LACKING_X86 if IS_X86 else [])]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="cliser-hardening-") as folder:
        source = pathlib.Path(folder) / "sample.c"
        source.write_text(SOURCE)
        for number, (extra, words) in enumerate(samples):
            if any(flag.startswith("-ftrivial") for flag in extra) and not compiler_takes(
                    cc, "-ftrivial-auto-var-init=zero"):
                continue
            program = pathlib.Path(folder) / f"sample-{number}"
            output_of(cc, *takes, *extra, "-o", program, source)
            complaints = check(cc, program)
            found = any(words in line for line in complaints) if words else not complaints
            if not found:
                wrong += 1
                print(f"{extra}: wanted {words or 'no complaint'}, got {complaints or 'none'}")
    print(f"hardening: {wrong} of {len(samples)} samples judged wrongly" if wrong
          else f"hardening: ok, {len(samples)} samples judged rightly")
    return 1 if wrong else 0


def main():
    arguments = sys.argv[1:]
    if len(arguments) == 2 and arguments[0] == "--self-test":
        return self_test(arguments[1])
    if len(arguments) < 2:
        return f"usage: {sys.argv[0]} CC PROGRAM… | --self-test CC"
    complaints = [line for program in arguments[1:] for line in check(arguments[0], program)]
    for complaint in complaints:
        print(complaint)
    print(f"hardening: {len(complaints)} complaints" if complaints
          else f"hardening: ok, {len(arguments) - 1} programs")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
