# Packages of npm's, which some folders of ours need to be built or run.

# Has npm fetch exactly what the lock file of the folder SOURCE names into node_modules of WORK,
# which lies below the build folder. No script of a package runs because it is installed. The file
# WORK/installed stands for that: depend on it.
function(cliser_fetch_packages source work comment)
  file(MAKE_DIRECTORY ${work})
  add_custom_command(OUTPUT ${work}/installed
    COMMAND ${CMAKE_COMMAND} -E copy ${source}/package.json ${source}/package-lock.json ${work}
    COMMAND ${CLISER_NPM} ci --ignore-scripts --include=dev --include=optional --no-audit --no-fund
      --no-update-notifier --loglevel=error
    COMMAND ${CMAKE_COMMAND} -E touch ${work}/installed
    DEPENDS ${source}/package.json ${source}/package-lock.json
    WORKING_DIRECTORY ${work}
    COMMENT ${comment}
    VERBATIM)
endfunction()
