# Programs, libcliser with its headers, a pkg-config file and a CMake package.
include(CMakePackageConfigHelpers)

install(TARGETS cliserd cliser-agent cliserctl cliser-stress
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES cliser.ini DESTINATION ${CMAKE_INSTALL_SYSCONFDIR}/cliser)

# The units name the programs where a distribution's package would put them.
install(FILES packaging/systemd/cliserd.service packaging/systemd/cliser-agent.service
  DESTINATION ${CMAKE_INSTALL_DATADIR}/cliser/systemd)
install(PROGRAMS packaging/nut/cliser-shutdown DESTINATION ${CMAKE_INSTALL_DATADIR}/cliser/nut)
install(FILES packaging/nut/nut-shutdown.conf packaging/nut/upsmon.conf packaging/nut/upssched.conf
  DESTINATION ${CMAKE_INSTALL_DATADIR}/cliser/nut)

install(TARGETS cliser EXPORT cliser-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/cliser DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT cliser-targets NAMESPACE cliser:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cliser)

configure_package_config_file(cmake/cliser-config.cmake.in cliser-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cliser)
write_basic_package_version_file(cliser-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cliser-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/cliser-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cliser)

# Relative to the file itself, so that "cmake --install --prefix" and moved trees are right as well.
file(RELATIVE_PATH CLISER_PC_TO_PREFIX
  ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/cliser.pc.in cliser.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cliser.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
