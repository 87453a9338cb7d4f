# What a mistake of ours must get past before it becomes an attack. All of it goes into
# cliser_flags, as far as compiler, linker and architecture have it; tests/hardening reads it back
# from the programs.
include(CheckCCompilerFlag)
include(CheckCSourceCompiles)
include(CheckLinkerFlag)

# Each of these goes into the compiler's flags if it takes it.
function(cliser_harden_compiler)
  foreach(flag IN LISTS ARGN)
    string(MAKE_C_IDENTIFIER "CLISER_HAS${flag}" known)
    # Without -Werror clang would only warn of what it ignores.
    set(CMAKE_REQUIRED_FLAGS -Werror)
    check_c_compiler_flag("${flag}" ${known})
    if(${known})
      target_compile_options(cliser_flags INTERFACE ${flag})
    endif()
  endforeach()
endfunction()

function(cliser_harden_linker)
  foreach(flag IN LISTS ARGN)
    string(MAKE_C_IDENTIFIER "CLISER_HAS${flag}" known)
    check_linker_flag(C "${flag}" ${known})
    if(${known})
      target_link_options(cliser_flags INTERFACE ${flag})
    endif()
  endforeach()
endfunction()

# Programs at a random address. What goes into programs only is compiled for that; libcliser is
# compiled with -fPIC, so that shared libraries can take it in as well.
set(is_pic $<BOOL:$<TARGET_PROPERTY:POSITION_INDEPENDENT_CODE>>)
target_compile_options(cliser_flags INTERFACE $<$<NOT:${is_pic}>:-fPIE>)
target_link_options(cliser_flags INTERFACE $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-pie>)

# Overwritten return addresses; stacks that grow over their guard page; jumps into the middle of
# functions and returns to elsewhere (CET of x86, BTI and PAC of ARM).
cliser_harden_compiler(-fstack-protector-strong -fstack-clash-protection -fcf-protection=full
  -mbranch-protection=standard)

# Tables of addresses that nobody can write to any more when main() begins, a stack that is no code,
# and code on pages of its own.
cliser_harden_linker(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,separate-code)

# Variables that somebody forgot to set: nothing of an earlier call in them. With the sanitizers a
# pattern instead, so that no test passes because of zeros. In Debug builds neither: valgrind looks
# for them there.
if(CLISER_SANITIZE)
  cliser_harden_compiler(-ftrivial-auto-var-init=pattern)
elseif(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  set(zero -ftrivial-auto-var-init=zero)
  if(CMAKE_C_COMPILER_ID MATCHES "Clang" AND CMAKE_C_COMPILER_VERSION VERSION_LESS 16)
    # These know it, but want it to be asked for twice.
    target_compile_options(cliser_flags INTERFACE ${zero}
      -enable-trivial-auto-var-init-zero-knowing-it-will-be-removed-from-clang)
  else()
    cliser_harden_compiler(${zero})
  endif()
endif()

# Calls of libc that check sizes; level 3 knows those of memory from malloc() as well. It needs
# optimisation, and the sanitizers have checks of their own.
if(NOT CLISER_SANITIZE AND NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  set(CMAKE_REQUIRED_FLAGS "-O2 -Werror -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3")
  check_c_source_compiles("#include <stdio.h>\nint main(void) { return 0; }" CLISER_HAS_FORTIFY_3)
  unset(CMAKE_REQUIRED_FLAGS)
  # Undefined first: distributions give it by themselves, with a number of theirs.
  target_compile_options(cliser_flags INTERFACE -U_FORTIFY_SOURCE
    -D_FORTIFY_SOURCE=$<IF:$<BOOL:${CLISER_HAS_FORTIFY_3}>,3,2>)
endif()
