# Libraries come by pkg-config. All that are missing are named at once, with the Debian package
# that has them.
find_package(PkgConfig REQUIRED)

set(missing_packages "")
function(cliser_need target module version debian_package)
  pkg_check_modules(${target} QUIET IMPORTED_TARGET "${module}>=${version}")
  if(NOT ${target}_FOUND)
    set(line "${module} >= ${version}  (Debian: ${debian_package})")
    set(missing_packages "${missing_packages}\n  ${line}" PARENT_SCOPE)
  endif()
endfunction()

#           CMake name  module           version  Debian package
cliser_need(LIBEVENT    libevent_core    2.1.12   libevent-dev)
cliser_need(LIBEVENT_OPENSSL libevent_openssl 2.1.12 libevent-dev)
cliser_need(OPENSSL     libssl           3.0      libssl-dev)
cliser_need(CRYPTO      libcrypto        3.0      libssl-dev)
cliser_need(INIH        inih             55       libinih-dev)
cliser_need(SQLITE      sqlite3          3.40     libsqlite3-dev)
cliser_need(SODIUM      libsodium        1.0.18   libsodium-dev)
cliser_need(JANSSON     jansson          2.14     libjansson-dev)
cliser_need(MICROHTTPD  libmicrohttpd    0.9.75   libmicrohttpd-dev)
cliser_need(CURL        libcurl          7.88     libcurl4-openssl-dev)
cliser_need(SYSTEMD     libsystemd       252      libsystemd-dev)
if(CLISER_TESTS)
  cliser_need(CMOCKA    cmocka           1.1.5    libcmocka-dev)
endif()

if(missing_packages)
  message(FATAL_ERROR "cliser needs libraries that are not here:${missing_packages}\n"
    "On Debian, scripts/install-dependencies installs them all.")
endif()
