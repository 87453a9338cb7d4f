# What every target of ours is compiled with.
add_library(cliser_flags INTERFACE)
target_compile_features(cliser_flags INTERFACE c_std_11)
target_compile_definitions(cliser_flags INTERFACE _GNU_SOURCE CLISER_VERSION="${PROJECT_VERSION}")
target_compile_options(cliser_flags INTERFACE
  -Wall -Wextra -Werror -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes
  -Wold-style-definition -Wwrite-strings -Wpointer-arith -Wcast-qual -Wformat=2 -Wundef
  -Wvla -Wswitch-enum -Wunused-result -Wnull-dereference -Wimplicit-fallthrough
  -fno-common)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  target_compile_options(cliser_flags INTERFACE -Wlogical-op -Wduplicated-cond -Wjump-misses-init)
endif()
if((CLISER_FUZZ OR CLISER_COVERAGE) AND NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
  message(FATAL_ERROR "CLISER_FUZZ and CLISER_COVERAGE need clang, not "
    "${CMAKE_C_COMPILER_ID}; the presets fuzz and coverage take it")
endif()
if(CLISER_COVERAGE)
  set(counters -fprofile-instr-generate -fcoverage-mapping)
  target_compile_options(cliser_flags INTERFACE ${counters})
  target_link_options(cliser_flags INTERFACE ${counters})
endif()
if(CLISER_FUZZ)
  # What libFuzzer learns from goes into all of our code; its main() only into the targets.
  target_compile_options(cliser_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(cliser_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(CLISER_SANITIZE OR CLISER_FUZZ)
  set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(cliser_flags INTERFACE ${sanitizers})
  target_link_options(cliser_flags INTERFACE ${sanitizers})
endif()
