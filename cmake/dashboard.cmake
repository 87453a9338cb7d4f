# The page for browsers: turns src/admin/dashboard, an npm package, into the C file that
# admin/dashboard.h declares, CLISER_DASHBOARD_SOURCE. Whatever npm fetches and the page's build
# writes lies below the build folder, so that the source tree stays clean and builds side by side do
# not meet.
option(CLISER_DASHBOARD "Build the page for browsers into cliserd (needs node and npm)" ON)
if(NOT CLISER_DASHBOARD)
  set(CLISER_DASHBOARD_SOURCE ${CMAKE_CURRENT_SOURCE_DIR}/admin/dashboard_off.c)
  return()
endif()

find_program(CLISER_NODE node)
find_program(CLISER_NPM npm)
set(node_version 0)
if(CLISER_NODE)
  execute_process(COMMAND ${CLISER_NODE} --version OUTPUT_VARIABLE node_version
    OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(REGEX REPLACE "^v" "" node_version "${node_version}")
endif()
if(NOT CLISER_NPM OR node_version VERSION_LESS 18)
  message(FATAL_ERROR "The page for browsers is built by node >= 18 and npm, which are not here  "
    "(Debian: nodejs npm).\n"
    "On Debian, scripts/install-dependencies installs them; with -DCLISER_DASHBOARD=OFF cliserd is "
    "built without the page, and without them.")
endif()

set(source ${CMAKE_CURRENT_SOURCE_DIR}/admin/dashboard)
set(work ${CMAKE_BINARY_DIR}/dashboard)
set(page ${work}/page)
set(CLISER_DASHBOARD_SOURCE ${work}/dashboard_files.c)

# All that belongs to the page; whoever works at it may have node_modules of their own there.
file(GLOB entries CONFIGURE_DEPENDS LIST_DIRECTORIES true ${source}/*)
list(REMOVE_ITEM entries ${source}/node_modules)
set(files "")
set(copies "")
foreach(entry IN LISTS entries)
  if(IS_DIRECTORY ${entry})
    cmake_path(GET entry FILENAME name)
    file(GLOB_RECURSE below CONFIGURE_DEPENDS ${entry}/*)
    list(APPEND files ${below})
    list(APPEND copies COMMAND ${CMAKE_COMMAND} -E copy_directory ${entry} ${page}/${name})
  else()
    list(APPEND files ${entry})
    list(APPEND copies COMMAND ${CMAKE_COMMAND} -E copy ${entry} ${page})
  endif()
endforeach()

include(${PROJECT_SOURCE_DIR}/cmake/npm.cmake)
cliser_fetch_packages(${source} ${work} "Fetching what the page is built with")

# A copy, since node looks for packages beside and above the files that want them.
add_custom_command(OUTPUT ${CLISER_DASHBOARD_SOURCE}
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${page}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${page}
  ${copies}
  COMMAND ${CMAKE_COMMAND} -E create_symlink ../node_modules ${page}/node_modules
  COMMAND ${CMAKE_COMMAND} -E chdir ${page} ${CLISER_NODE} build.mjs ${CLISER_DASHBOARD_SOURCE}
  DEPENDS ${work}/installed ${files}
  COMMENT "Building the page"
  VERBATIM)
